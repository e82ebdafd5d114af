# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The kinds of files that are taken for images and videos, by suffix in lower case."""

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp')
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')
