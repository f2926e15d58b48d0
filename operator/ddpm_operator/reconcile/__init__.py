"""The decision logic: what to do about a sampling, from what was observed of it. Pure, without I/O and without a clock.

`reconcile.reconcile(observed, now)` takes an `Observed` and returns a `Decision`, a list of actions. One pass computes
its conclusions once (`assessment`), then takes the step of the state that the sampling is in. Where to look:

- the states of a sampling, spec.suspend and reopening a finished one: `reconcile`
- between two attempts, back-off before a retry, the operator's own admission: `between_attempts`
- an active attempt, step by step: `active_attempt`; its beginning and end in the status: `attempts`
- the head dies or does not answer: `head_failure`
- pods do not start (image, node, webhook, Secret): `diagnosis`
- the API server rejects a request of the operator: `action_failures`
- a ResourceQuota is full: `quota`
- Kueue suspends the RayCluster: `kueue`
- the driver's state: `driver_state`; its progress and submission: `driver_progress`; its end: `driver_end`
- a deadline, the back-off or the TTL passes: `deadlines`
- how often the head is polled and the status written: `polling`
- spec.samples grows: `growth`
- container images: `images`; the preview picture: `preview`; the progress figures: `progress`
- unused RayClusters are deleted, or kept after a failure: `cleanup`
- Kubernetes events: `events`

The inputs and outputs are `observed`, `progress_document` and `actions`. `status_builder`, `transition` and `problem`
are the types in between.
"""
