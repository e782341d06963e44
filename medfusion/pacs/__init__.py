"""Archives (PACS): find and fetch scans, send reports back, and listen for what modalities send. Off unless configured.

Addresses come from the configuration alone: none from a page, a DICOM object, or a redirect. What the libraries below
would log or warn of names patients and their objects, so they are silent in a process that uses archives.
"""

import logging
import warnings

for _library in ("pynetdicom", "dicomweb_client", "urllib3.connectionpool", "pydicom"):
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"(pydicom|dicomweb_client)\b")
