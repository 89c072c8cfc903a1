"""Units: committed, content-addressed results of jobs, and what refers to them."""
