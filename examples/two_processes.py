"""Several processes (DDP): the loss of the whole batch, whatever each process holds.

    torchrun --nproc-per-node 2 examples/two_processes.py

DDP averages the gradients of the processes. That is right for a mean over images, but the partial
cross-entropy is a mean over labelled pixels, and the processes hold different numbers of them. The
remedy is one all-reduce of a count: the share of the labelled pixels times the number of processes
turns the average of means into the mean over the whole batch. gloo on CPUs, NCCL on GPUs.
"""

import time

import torch
import torch.distributed as dist
from accl_harness.data.phantom import generate
from accl_harness.data.weak import weak_labels
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import accl_ext


def whole_batch_mean(loss, count):
    """Turns a mean over this process's ``count`` items into this process's part of the mean."""
    total = count.to(torch.float64)
    dist.all_reduce(total)
    return loss * (count * dist.get_world_size() / total.clamp(min=1)).to(loss.dtype)


def leave():
    """Ends the communication of all processes, so that each of them can exit.

    DDP starts its sums in the backward pass, and gloo's threads hold Python objects of that pass
    until they come round to letting go of them. PyTorch 2.13 aborts a process ("terminate called
    without an active exception") in which one of them does so while Python shuts down, and it
    has no call that waits for them. They need a millisecond, on a busy machine some dozens.
    """
    dist.barrier()
    time.sleep(1)
    dist.destroy_process_group()


def networks():
    generator = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 1, 1),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(2, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 1, 4, 2, 1)
    )
    return generator, discriminator


def main(steps=20, size=64):
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, processes = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
    torch.manual_seed(0)  # the same networks everywhere

    # Every process takes its own part of the data.
    images, masks = generate(8 * processes, size=size)
    images, masks = images[rank::processes], masks[rank::processes]
    labels = torch.stack([torch.tensor(weak_labels(mask)) for mask in masks]).to(device)
    images = (torch.tensor(images)[:, None] / 127.5 - 1).to(device)
    masks = torch.tensor(masks)[:, None].float().to(device)

    generator, discriminator = (network.to(device) for network in networks())
    ids = [device] if cuda else None
    parallel_g = DistributedDataParallel(generator, device_ids=ids)
    parallel_d = DistributedDataParallel(discriminator, device_ids=ids)
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=1e-3)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=1e-3)

    draw = torch.Generator().manual_seed(rank)
    for step in range(steps):
        batch = torch.randint(len(images), (2,), generator=draw)
        image, label, real = images[batch], labels[batch], masks[batch.roll(1)]
        head = accl_ext.segmentation_head(parallel_g(image), label, bounds=(20.0, 400.0))

        optimizer_d.zero_grad()
        # One call: DDP wants one forward for each backward.
        pairs = torch.cat(
            [torch.cat([image, head.probabilities.detach()], 1), torch.cat([image, real], 1)]
        )
        fake_scores, real_scores = parallel_d(pairs).chunk(2)
        accl_ext.accl_discriminator_loss(fake_scores, real_scores, scale=0.5).backward()
        optimizer_d.step()

        # Through the bare module: D's weights get no gradient here, so DDP has nothing to add up.
        discriminator.requires_grad_(False)
        accl = accl_ext.accl_loss(discriminator(torch.cat([image, head.probabilities], 1)))
        discriminator.requires_grad_(True)
        labelled = (label != 255).sum()
        loss = whole_batch_mean(head.partial_ce, labelled) + 0.01 * head.size_penalty + 0.1 * accl
        optimizer_g.zero_grad()
        loss.backward()
        optimizer_g.step()

        mean = loss.detach()
        dist.all_reduce(mean)
        if rank == 0 and step % 5 == 4:
            print(f"step {step + 1}: loss {float(mean) / processes:.4f}", flush=True)

    # The processes hold the same weights at the end.
    weights = torch.cat([p.detach().flatten() for p in generator.parameters()])
    first = weights.clone()
    dist.broadcast(first, 0)
    same = torch.equal(first, weights)
    print(f"process {rank}: weights as in process 0: {same}", flush=True)
    leave()
    return same


if __name__ == "__main__":
    main()
