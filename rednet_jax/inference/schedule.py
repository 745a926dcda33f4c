"""When a tracker searches which view of a frame, and the search that runs beside the network."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.detector import Detection, FaceDetector
from rednet_jax.inference.search import View, detect_in, tile_views, whole_view

SEARCH_EVERY = 3
"""While a person is missing or hidden, one frame in this many is searched."""

NEWCOMERS_EVERY = 21
"""While no person is missing, but more could be tracked, every view of the frame is searched once
in about this many frames: within a second of video."""

SEARCHED_BESIDE = 3
"""Frames during which a search runs beside the network. The number is fixed, so that results do not
depend on the machine's speed."""


class SearchSchedule:
    """Runs the detector on the views of a video's frames.

    A frame that must be searched is searched at once. All other searches run in a thread while the
    network tracks the faces, and their detections are used `SEARCHED_BESIDE` frames later.
    """

    def __init__(self, detector: FaceDetector) -> None:
        """Starts before the first frame of a video."""
        self._detector = detector
        self._whole_frames = getattr(detector, "whole_frames", False)
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="detector")
        self._search: Future[list[Detection]] | None = None
        self.reset()

    def reset(self) -> None:
        """Ends the search in progress: the next frame is the first one of a video."""
        self._searched_in = self._whole_searched_in = -NEWCOMERS_EVERY
        self._searches = 0
        self._end_search()

    def detections(
        self,
        image: NDArray[np.uint8],
        frame: int,
        *,
        at_once: bool,
        tracking: bool,
        missing: bool,
    ) -> list[Detection]:
        """Returns the detections in a frame, or those of a search that an earlier frame started.

        Args:
            image: RGB uint8 [H, W, 3].
            frame: index of the frame.
            at_once: whether this frame must be searched.
            tracking: whether any face is tracked.
            missing: whether a person is missing or hidden.
        """
        detections: list[Detection] = []
        if at_once:
            # The detections of an earlier frame are out of date after a cut or a loss.
            self._end_search()
        elif self._search is not None and frame - self._searched_in >= SEARCHED_BESIDE:
            detections = self._end_search()
        view = self._view(image.shape, frame, at_once, tracking, missing)
        if view is None:
            return detections
        self._searched_in = frame
        if view == whole_view(image.shape):
            self._whole_searched_in = frame
        if at_once or not tracking:
            return detections + detect_in(self._detector, image, view)
        self._search = self._beside.submit(detect_in, self._detector, image, view)
        if self._whole_frames:
            # The caller may tell such a detector which frame is the current one, so this search
            # must end before the next frame begins.
            wait([self._search])
        return detections

    def _view(
        self, shape: tuple[int, ...], frame: int, at_once: bool, tracking: bool, missing: bool
    ) -> View | None:
        """The view to search in a frame of this shape, or None."""
        whole = whole_view(shape)
        if at_once:
            return whole
        if self._search is not None:
            return None
        since, since_whole = frame - self._searched_in, frame - self._whole_searched_in
        tiles = [] if self._whole_frames else tile_views(shape)
        if not tracking:
            # Without faces the network does not run, so that there is time for two searches.
            if since_whole >= SEARCH_EVERY:
                return whole
            if since_whole != 1 or self._whole_frames:
                return None
            return self._next([*tiles, whole._replace(turned=True)])
        if missing:
            if since < SEARCH_EVERY:
                return None
            # A lost face is seldom small: every second search is of the whole frame.
            return self._next(tiles) if tiles and since_whole == since else whole
        views = [whole, *tiles]
        due = since >= max(SEARCHED_BESIDE, NEWCOMERS_EVERY // len(views))
        return self._next(views) if due else None

    def _next(self, views: list[View]) -> View:
        self._searches += 1
        return views[self._searches % len(views)]

    def _end_search(self) -> list[Detection]:
        """Waits for the search beside the network, if any, and returns its detections."""
        # Cleared first, so that an error of the detector is raised once, not in every later frame.
        search, self._search = self._search, None
        return [] if search is None else search.result()
