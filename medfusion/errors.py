"""Every error that a user can cause or mend. Each message says the cause, the place and the next step.

MedFusionError
├── ScanError                 a file that cannot be shown
│   ├── NotAnImage            no image format that we read
│   ├── DamagedFile           truncated or corrupt
│   ├── UnsupportedScan       a known format that has nothing to show, or a coding that we cannot decode
│   └── ScanTooLarge          over the limit on bytes or pixels
├── ModelError                a model that cannot be found, or must not be used
│   ├── ModelNotFound
│   └── ModelDamaged          weights and card do not belong together
├── DataError                 a labelled set that cannot be used for training or evaluation
│   └── PatientOverlap        one patient on both sides of a split
├── ConfigError               settings that contradict each other or the data
├── AccessDenied              somebody who has not signed in, or has not the role for it
├── RecordsError              the database of the records cannot be used, or does not hold what was asked for
├── ArchiveError              an archive (PACS) that refuses, or answers what makes no sense
│   └── ArchiveUnreachable    one that does not answer now; another try may help
└── ExplanationError          a map that cannot be made for this model, scan or target
    └── Cancelled             the user stopped it
"""


class MedFusionError(Exception):
    """Root of all errors whose message is written for the user."""


class ScanError(MedFusionError):
    pass


class NotAnImage(ScanError):
    pass


class DamagedFile(ScanError):
    pass


class UnsupportedScan(ScanError):
    pass


class ScanTooLarge(ScanError):
    pass


class ModelError(MedFusionError):
    pass


class ModelNotFound(ModelError):
    pass


class ModelDamaged(ModelError):
    pass


class DataError(MedFusionError):
    pass


class PatientOverlap(DataError):
    pass


class ConfigError(MedFusionError):
    pass


class AccessDenied(MedFusionError):
    pass


class RecordsError(MedFusionError):
    pass


class ArchiveError(MedFusionError):
    pass


class ArchiveUnreachable(ArchiveError):
    pass


class ExplanationError(MedFusionError):
    pass


class Cancelled(ExplanationError):
    pass
