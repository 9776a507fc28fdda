"""Networks of two stages, backbone and head, and the copy of a network that is trained."""
