"""Training programs of the embedded preset: synthetic presenters and speech, autoencoder, teacher, student, evaluation."""
