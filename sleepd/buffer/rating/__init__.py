"""How a rating becomes a salience, and what happens when a person rates a trained reply down."""
