"""The demonstration: 500 orders, two workers on one SQLite file, one killed and one stopped on the way.

`conductor` starts the processes and does them harm, `workflow` is what they run, `warehouse` is the outside
world where effects take hold, `proof` compares what should be with what is, `screen` draws, and `play` puts
it all together. `duramen demo` starts it.
"""
