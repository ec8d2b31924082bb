"""What scores need to know of the model and the data: one file for each kind of evidence."""
