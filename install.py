"""Run by the WebUI at start: makes sure that piexif is there (the WebUIs bring it), nothing else."""

import launch

if not launch.is_installed("piexif"):
    # a shell reads it: without the quotes > would write a file
    launch.run_pip('install "piexif>=1.1.3"', "piexif for FAM Hires")
