"""The networks of :mod:`controller.allocators.video.bdqn`: where they learn, and how."""
