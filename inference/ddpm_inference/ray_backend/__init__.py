"""The Ray side of a run: finding and connecting to a cluster, its actors, and the queue of shards that feeds them.

`address` finds the cluster, `connection` connects to it, `actor_pool` keeps one `worker` actor busy for each slot and
takes shards from `shard_queue`. Everything that is not Ray's public API is in `ray_private`.
"""
