"""A process that takes one image for each line that it reads, and says what it would tell the sender.

`python patient.py STATE`, with the shim of this folder loaded, so that the disk can fail under it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgemed.serve.adoption import take_in
from edgemed.serve.alarms import Alarms
from edgemed.serve.config.daemon import SpoolSection
from edgemed.serve.intake import Arrival, Intake
from edgemed.serve.journal.recovery import opened_journal
from edgemed.serve.metrics import Metrics
from edgemed.serve.spool import Spool
from tests.serve.powercut.sender import CT, EXPLICIT, encode


def main() -> None:
    spool = Spool(Path(sys.argv[1]))
    spool.make_root()
    spool.prepare()
    with opened_journal(spool) as (journal, _):
        take_in(spool, journal)
        alarms = Alarms(journal)
        alarms.load()
        section = SpoolSection.model_validate({"reserve": "1B", "warn": "2MiB"})
        intake = Intake(section, spool, journal, alarms, Metrics())
        for line in sys.stdin:
            uid = line.strip()
            data, digest = encode(uid, uid.encode() * 100)
            try:
                file = intake.new_file()
                file.write_bytes(data)
            except Exception as error:  # as an inlet does
                verdict = f"inlet-{type(error).__name__}"
            else:
                verdict = intake.accept(
                    Arrival(file, "dicom", "CT1", CT, uid, digest, len(data), syntax=EXPLICIT)
                ).verdict
            codes = ",".join(alarm.code for alarm in alarms.standing)
            sys.stdout.write(f"{verdict} {codes}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
