"""Training of the demo pair: a small Gemma 4 target and its MTP drafter, on Python source code.

`demo_pair` is the way in; it goes through these, in this order:

    settings            what a run does, from its command line
    sources, corpus     which packages, their licences, their files; what is held out
    tokenizer, prompts  a vocabulary for them, and prompts from the held-out files
    batches             the corpus as rows of tokens
    shapes, network     both networks' sizes and arithmetic
    acceleration        the device, and whether code is compiled for it
    optimizer           the steps of both
    target_training     stage 1: the next token
    drafter_training    stage 2: what the target will say, several drafts deep
    generation          the target writes texts of its own
    refining            stage 3: stage 2 on those texts
    export              Hugging Face folders
    evaluation          acceptance lengths
    measuring           the figures, and model_card their page
"""
