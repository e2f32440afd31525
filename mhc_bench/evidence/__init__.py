"""Evidence is plain data: records, and the statistics, tables and figures made from records alone."""

from mhc_bench.evidence.assemble import RunEvidence, assemble_record, thin_curve
from mhc_bench.evidence.record import (
    GAIN_BACKWARD,
    GAIN_FORWARD,
    GRADIENT_NORM,
    LOSS,
    Curve,
    Record,
    StepTime,
    json_schema,
)
from mhc_bench.evidence.store import read_record, read_records, write_record

__all__ = [
    "GAIN_BACKWARD",
    "GAIN_FORWARD",
    "GRADIENT_NORM",
    "LOSS",
    "Curve",
    "Record",
    "RunEvidence",
    "StepTime",
    "assemble_record",
    "json_schema",
    "read_record",
    "read_records",
    "thin_curve",
    "write_record",
]
