"""What lies in a folder that nobody has described yet: its images and labels, and a description of them."""
