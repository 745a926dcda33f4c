"""Faces drawn by the computer, with exact landmarks: nothing in them is anyone's."""
