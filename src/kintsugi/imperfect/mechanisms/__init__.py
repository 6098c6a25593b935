"""How slots, steps and labels go missing: one module for each family of mechanisms."""
