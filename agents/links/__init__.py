"""What agents and applications say to the controller and to the edge agent over gRPC."""
