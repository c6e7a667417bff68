"""From domain to proto: what every answer says of itself."""

import math

from google.protobuf.duration_pb2 import Duration

from segue.inference.answers import Context, Part
from segue.rpc.convert import to_timestamp
from segue.v1 import answer_pb2


def context(made: Context) -> answer_pb2.AnswerContext:
    """The proto of one answer's context."""
    return answer_pb2.AnswerContext(
        model_versions=made.model_versions,
        feature_service=made.feature_service,
        as_of=to_timestamp(made.as_of_ms),
        parts=[_part(part, made.row) for part in made.parts],
        fallback=f"FALLBACK_{made.fallback.value}",
    )


def _part(part: Part, row: int) -> answer_pb2.AnswerPart:
    age_ms = float(part.age_ms[row])
    return answer_pb2.AnswerPart(
        name=part.view,
        status=f"PART_STATUS_{part.status[row].value}",
        age=None if math.isnan(age_ms) else _duration(max(int(age_ms), 0)),
        truncated=bool(part.truncated[row]),
    )


def _duration(milliseconds: int) -> Duration:
    seconds, rest = divmod(milliseconds, 1000)
    return Duration(seconds=seconds, nanos=rest * 1_000_000)
