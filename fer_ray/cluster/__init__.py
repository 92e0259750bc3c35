"""Other machines: joining a Ray cluster, asking its nodes, handing it a command to run."""
