"""MedFusionNet: a compact CNN-Transformer hybrid for medical images, with evidence one can question.

Research use only. Not for clinical decisions.
"""

__version__ = "0.1.0"
MAKER = "MedFusionNet"  # Manufacturer of the DICOM objects made here, by which they are known again
