"""An example of a package that adds a family of networks to ddpm-sample."""
