"""Sources of labelled faces, and the prepared data set made of them."""
