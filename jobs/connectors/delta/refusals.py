"""Names what keeps Delta from writing into a table: what others have set on it, or columns that it cannot hold."""

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException

from conf.errors import TidemarkError
from jobs.connectors.causes import Cause, causes

# What a write raises; Delta's own classes of conflicts are none of these.
RAISED = (PySparkException, Py4JJavaError)
# Delta's names of errors: of what people have set on a table, none of which is ours.
SET_BY_OTHERS = (
    *("DELTA_CONSTRAINT_", "DELTA_VIOLATE_CONSTRAINT_WITH_VALUES", "DELTA_NOT_NULL_CONSTRAINT_VIOLATED"),
    *("DELTA_GENERATED_COLUMNS_", "DELTA_IDENTITY_COLUMNS_", "DELTA_EXCEED_CHAR_VARCHAR_LIMIT"),
    *("DELTA_CANNOT_MODIFY_APPEND_ONLY", "RESERVED_CDC_COLUMNS_ON_WRITE", "DELTA_TABLE_ALREADY_CONTAINS_CDC_COLUMNS"),
    *("DELTA_UNSUPPORTED_FEATURES_FOR_WRITE", "DELTA_BLOCK_COLUMN_MAPPING_AND_CDC_OPERATION"),
)
# Of columns that Delta cannot hold.
UNHOLDABLE = (
    *("DELTA_UNSUPPORTED_DATA_TYPES", "UNSUPPORTED_TIME_TYPE", "DELTA_COMPLEX_TYPE_COLUMN_CONTAINS_NULL_TYPE"),
    *("DELTA_INVALID_CHARACTERS_IN_COLUMN_NAME", "DELTA_DUPLICATE_COLUMNS_FOUND", "DELTA_CANNOT_WRITE_EMPTY_SCHEMA"),
    "DELTA_FEATURES_REQUIRE_MANUAL_ENABLEMENT",
)
# What Delta says of the cause, by the names of its parameters; others may hold what rows hold.
SAID = (
    *("constraintName", "expression", "columnName", "columnType", "dataType", "constraints", "generatedColumns"),
    *("columnList", "config", "unsupported", "dataTypeList", "invalidColumnNames", "duplicateCols", "colName"),
    *("columName", "unsupportedFeatures", "expr", "generatedExprs"),
)
LONGEST = 400  # characters that a message quotes: Spark chokes on a failure's text when it is long


def refusal(path: str, failure: BaseException) -> TidemarkError | None:
    """Return the TABLE_REFUSES that a failed write to the table at `path` means; None where it is none."""
    for cause in causes(failure):
        if cause.condition.startswith(SET_BY_OTHERS):
            take_back = f"ALTER TABLE delta.`{path}` DROP CONSTRAINT ..., ALTER COLUMN ... DROP NOT NULL"
            remedy = (
                f"somebody has set this on the table, Tidemark did not: take it back ({take_back} or UNSET "
                "TBLPROPERTIES), then start the job again: it goes on where it was"
            )
            return TidemarkError("TABLE_REFUSES", f"table {path}: {_said(cause)}", remedy)
        if cause.condition.startswith(UNHOLDABLE):
            remedy = "let the job cast that column to a type that Delta has, or give it another name"
            return TidemarkError("TABLE_REFUSES", f"table {path}: {_said(cause)}", remedy)
    return None


def _said(cause: Cause) -> str:
    named = (f"{name} {' '.join(cause.parameters[name].split())}" for name in SAID if cause.parameters.get(name))
    return f"{cause.condition} ({', '.join(named)})"[:LONGEST].replace("; ", ", ")
