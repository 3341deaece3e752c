"""How the labels of every tool and data set become train ids."""
