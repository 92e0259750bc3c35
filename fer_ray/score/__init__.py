"""Image folders into Parquet, shard by shard."""
