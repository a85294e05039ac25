"""The engines that variants share."""
