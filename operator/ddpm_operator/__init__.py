"""The operator half: a DDPMSampling becomes a RayCluster, its samples are kept, the cluster goes."""
