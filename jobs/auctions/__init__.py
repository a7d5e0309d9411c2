"""The auctions of the Nexmark benchmark: who bids what, who wins, what sells; and a bank whose sum must stay zero."""
