"""The Ray side of a run: finding and connecting to a cluster, its actors, and the queue of shards that feeds them.

`address` finds the cluster, `connection` connects to it, `actor_pool` keeps the actors (`worker`) busy, and
`shard_queue` decides which shard goes where. Everything that is not Ray's public API is in `ray_private`.

Where to look:

- which Ray is used, its token: `address`; the connection and its errors: `connection`
- versions and packages of the nodes: `package_check`, `node_packages`
- what an actor reserves, and how many fit: `actor_resources`, `cluster.capacity`
- no room for a worker, nodes that join, the head that does not answer: `actor_pool`, `_scale_up` and `_check_…`
- shards in flight on each actor: `actor_pool.MAX_IN_FLIGHT_PER_ACTOR`
- what a worker is given: `worker.actor_factory` at its creation, `worker.SamplingContext` with every call
- a worker dies: `actor_pool._on_death`; why it died: `actor_pool._cause_of`, `ray_errors`
- a shard raises an error: `actor_pool._on_shard_failure`, `shard_queue.mark_failed`
- a worker cannot reach the store: it returns the samples (`worker.ShardResult`), and the driver stores them

Retries are layered, from the inside out. An attempt here is one try of a shard; the operator's attempt is a RayCluster.

1. Ray repeats a call of which the actor's process died: `worker.MAX_TASK_RETRIES`, 1. The driver does not notice.
2. Ray restarts the actor's process: `worker.MAX_RESTARTS`, 3. After that the actor is dead, and `actor_pool` removes it
   and creates another one where there is room.
3. `shard_queue` tries a shard again, on another worker if there is one: `MAX_ATTEMPTS`, 3 in all. An attempt fails if
   the worker raises an error, or if it dies and layer 1 does not help. Shards that were queued behind the one being
   sampled lose no attempt. After the last attempt the shard has failed permanently, and the run goes on; only a
   StorageFailed ends it.
4. The run ends early if it makes no progress: more than `actor_pool.MAX_DEATHS_WITHOUT_RESULT` (3) actors die for good
   without a result in between, or `shard_queue.MAX_FAILURES_WITHOUT_SUCCESS` (4) shards have failed permanently and
   none is stored.

An actor that fails to start is not replaced. No layer changes a sample: its bits depend on the identity and its index.
"""
