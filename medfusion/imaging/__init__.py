"""Bytes to Scan, and Scan to a picture on the screen. Never touches disk, network or Streamlit."""

from medfusion.imaging.masks import read_mask
from medfusion.imaging.reader import patient_number, read_scan
from medfusion.imaging.windowing import display, presets

__all__ = ["display", "patient_number", "presets", "read_mask", "read_scan"]
