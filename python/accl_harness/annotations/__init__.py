"""What people mark and paint with, read into the folder layout: a file for each tool's format."""
