"""Images, videos and cameras for `atss predict`: where they come from, and where drawn images and detections go."""
