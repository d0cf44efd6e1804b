"""What is measured in rounds, with peers: a file a kind of rows; `catalogue` numbers them."""
