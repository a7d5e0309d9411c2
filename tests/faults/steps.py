"""The fail points of the protocol, in the order in which a batch comes by them."""

PLAN = ("plan-before-fence", "plan-after-fence", "plan-after-barrier", "plan-after-flush", "plan-after-commit")
SHARD = (
    "shard-before-fence",
    "shard-after-fence",
    "shard-after-barrier",
    "shard-mid-produce",
    "shard-after-flush",
    "shard-after-commit",
)
DRIVER = (*PLAN, *SHARD, "batch-before-commit-log")
# A small batch, which the driver publishes itself.
WHOLE = (
    "whole-before-fence",
    "whole-after-fence",
    "whole-after-barrier",
    "shard-mid-produce",
    "whole-after-flush",
    "whole-after-commit",
    "batch-before-commit-log",
)
