"""What the fake TensorRT does, by topic.

Each public class has the behaviour of the one of its name in ``tensorrt``; ``fake_tensorrt`` takes of it what a version has, checks
arguments before a method is called, and gives every object ``_fake`` (module, record, machine). A plain value of a class is a
property's first value. Sources: the bindings' own source for callbacks, NVIDIA's documentation for the rest; what is assumed
says so.
"""
