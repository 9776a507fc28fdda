"""What a network learns: head, loss, metrics and the decoding of its predictions; one file for each task."""
