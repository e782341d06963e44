"""Training and fine-tuning of MedFusionNet. Imports medfusion; medfusion never imports this."""
