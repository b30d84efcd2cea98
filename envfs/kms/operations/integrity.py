"""What the filesystem tells the audit trail of: that something in a volume is not what was written."""

from __future__ import annotations

from envfs.kms.core import Core
from envfs.kms.model import RequestFacts


class IntegrityOperations(Core):
    """Recorded as an event of envfs itself: no caller is to blame, and nobody's permission is asked."""

    def record_integrity_failure(self, volume_id: bytes, request: str, problem: str, unrecorded: int = 0) -> None:
        """envfs:IntegrityFailure: damage or tampering was met by `request`, in words. `unrecorded`: so many more were
        met since the last record. `Internal` if the record cannot be written.
        """
        parameters = {"volume": volume_id.hex(), "request": request, "problem": problem, "unrecorded": unrecorded}
        with self._recorded("envfs:IntegrityFailure", None, RequestFacts(via_service="envfs"), parameters):
            pass
