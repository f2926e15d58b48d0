"""The decision logic: what to do about a sampling, from what was observed of it. Pure, without I/O and without a clock.

`reconcile.reconcile(observed, now)` takes an `Observed` and returns a `Decision`: a list of actions, and when to
requeue. Each pass first draws its conclusions (`assessment`), then takes the next step for the current state. Where to
look:

- the states of a sampling, spec.suspend and reopening a finished one: `reconcile`
- between two attempts, the wait for the back-off, the operator's own admission (`atOnce`): `between_attempts`; which
  sampling is next: `ddpm_operator.controller.admission`
- an active attempt, step by step, and in which order its possible ends are checked: `active_attempt`
- what the beginning, a pause and the end of an attempt do to the status; which failures allow no further attempt
  (`FINAL_REASONS`): `attempts`
- the head dies or does not answer: `head_failure`
- pods do not start (image, node, webhook, Secret): `diagnosis`
- KubeRay is missing, too old or not running: `kuberay`
- the API server, a template or the head rejects a request of the operator: `action_failures`; which error is which:
  `ddpm_operator.kube.errors`
- a ResourceQuota is full: `quota`
- Kueue suspends the RayCluster: `kueue`
- the driver's state: `driver_state`; its progress and submission: `driver_progress`; its end: `driver_end`
- a deadline, the back-off between attempts or the TTL passes: `deadlines`
- how often the head is polled and the status written: `polling`
- spec.samples grows: `growth`; spec.repair is raised: `reconcile`, `attempts.wants_repair`
- which nodes have the hardware of the stored samples: `placement`; an attempt on another node, or no such node:
  `other_hardware`
- container images: `images`; the preview picture: `preview`; the progress figures: `progress`
- unused RayClusters are deleted, or kept after a failure: `cleanup`
- Kubernetes events: `events`

A failure's hint is in `ddpm_operator.api.reasons`, unless `action_failures` or `kuberay` has one for the error.

The inputs and outputs are `observed`, `progress_document` and `actions`. `status_builder`, `transition` and `problem`
are the intermediate types.
"""
