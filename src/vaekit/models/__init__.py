"""What a VAE is made of: pure maths on tensors."""
