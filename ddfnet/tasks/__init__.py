"""What is trained and how it is measured: Lightning modules and data modules."""
