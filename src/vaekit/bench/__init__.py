"""How fast this machine trains and uses models with vaekit, beside what others do with the same network and images."""
