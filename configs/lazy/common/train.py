"""What tools/lazyconfig_train_net.py reads besides model, optimizer, schedule and data."""

train = dict(
    output_dir="./output",
    init_checkpoint="",
    remake_head=False,  # True: what does not fit of a checkpoint's head starts anew, to fine-tune for other classes
    allow_pickle=False,  # True: init_checkpoint may be a .pkl file, as those of the model zoo are
    max_iter=90000,
    seed=-1,  # of the random numbers; -1 for others in every run
    amp=dict(enabled=False),
    ddp=dict(broadcast_buffers=False),
    checkpointer=dict(period=5000, max_to_keep=None),
    eval_period=10000,  # 0: only at the end
    log_period=20,
    device="cuda",
)
