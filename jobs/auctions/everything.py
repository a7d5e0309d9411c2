"""What do all jobs on auctions say, kept up to date by one application?

topics persons, auctions, bids, transfers -> every job of this folder -> their tables, topic winning_bids
    ./spark-submit.sh auctions.everything --until-caught-up

Every query keeps the name, checkpoint and settings of its own job. `winning_bids` begins first and what reads its topic
last; what it publishes after they have begun is theirs with the next run.
"""

from jobs.auctions import (
    annotated_bids,
    auction_bidding,
    balances,
    bid_counts,
    bid_log,
    bidder_sessions,
    bids_by_arrival,
    bids_by_daytime,
    bids_in_euros,
    category_bids,
    category_prices,
    channel_bidding,
    channel_ids,
    daily_bidding,
    every_bid,
    highest_bid,
    hot_auctions,
    last_bids,
    local_sellers,
    new_sellers,
    sampled_auctions,
    seller_prices,
    top_bids,
    url_folders,
    winning_bids,
)
from jobs.pipeline.run import Run

JOBS = {
    "auctions.winning_bids": winning_bids.build,
    "auctions.every_bid": every_bid.build,
    "auctions.bids_in_euros": bids_in_euros.build,
    "auctions.sampled_auctions": sampled_auctions.build,
    "auctions.local_sellers": local_sellers.build,
    "auctions.hot_auctions": hot_auctions.build,
    "auctions.highest_bid": highest_bid.build,
    "auctions.new_sellers": new_sellers.build,
    "auctions.bid_log": bid_log.build,
    "auctions.bidder_sessions": bidder_sessions.build,
    "auctions.bids_by_arrival": bids_by_arrival.build,
    "auctions.annotated_bids": annotated_bids.build,
    "auctions.bids_by_daytime": bids_by_daytime.build,
    "auctions.daily_bidding": daily_bidding.build,
    "auctions.channel_bidding": channel_bidding.build,
    "auctions.auction_bidding": auction_bidding.build,
    "auctions.last_bids": last_bids.build,
    "auctions.top_bids": top_bids.build,
    "auctions.category_bids": category_bids.build,
    "auctions.channel_ids": channel_ids.build,
    "auctions.url_folders": url_folders.build,
    "auctions.balances": balances.build,
    "auctions.bid_counts": bid_counts.build,
    "auctions.category_prices": category_prices.build,
    "auctions.seller_prices": seller_prices.build,
}


def build(run: Run) -> None:
    for job, declare in JOBS.items():
        run.under_name(job, declare)
