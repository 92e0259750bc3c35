"""What a bundle is worth on a split."""
