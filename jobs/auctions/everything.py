"""What do all jobs on auctions say, kept up to date by one application?

topics persons, auctions, bids, transfers -> every job of this folder -> their tables, topic winning_bids
    ./spark-submit.sh auctions.everything --until-caught-up

Every query keeps the name, checkpoint and settings of its own job. `winning_bids` begins first and what reads its topic
last; what it publishes after they have begun is theirs with the next run.
"""

from collections.abc import Callable
from importlib import import_module

from jobs.pipeline.run import Run

ORDER = """
    winning_bids every_bid bids_in_euros sampled_auctions local_sellers hot_auctions highest_bid new_sellers
    bid_log bidder_sessions bids_by_arrival annotated_bids bids_by_daytime daily_bidding channel_bidding
    auction_bidding last_bids top_bids category_bids channel_ids url_folders balances bid_counts category_prices
    seller_prices
"""
JOBS: dict[str, Callable[[Run], None]] = {
    f"auctions.{name}": import_module(f"jobs.auctions.{name}").build for name in ORDER.split()
}


def build(run: Run) -> None:
    for job, declare in JOBS.items():
        run.under_name(job, declare)
