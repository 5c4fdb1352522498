"""cpt: continued pretraining of open-weights LLMs on SLURM.

Rooms, top to bottom; a room imports only from lines below its own::

    report
    posttrain | evaluate | export | bench
    train
    engine | convert | checkpoint | data | mix | sweep | plan | topology | tracking
    config
    core
"""
