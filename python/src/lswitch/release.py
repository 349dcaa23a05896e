"""The release, which a pack names in its hello: it must be its driver's."""

RELEASE = "0.1.0"
